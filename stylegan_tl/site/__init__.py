"""A model as a web page that opens from disk: "this … does not exist", with or without its G."""

from stylegan_tl.site.build import site

__all__ = ["site"]
