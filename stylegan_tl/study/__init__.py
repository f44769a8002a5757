"""Records of trials. Imports no torch."""
