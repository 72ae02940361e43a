"""A page in the browser to try a model on; :mod:`.page` and :mod:`.serving` need gradio."""
