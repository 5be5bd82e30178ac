"""The texts of the page, one module per language. To add a language, see :mod:`frontend.ui_text`."""
