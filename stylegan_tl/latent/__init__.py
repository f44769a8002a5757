"""Tools for the latents of a trained generator: walk, mix, truncate, project, factorise, blend."""
