"""A page in the browser to try a model on; :mod:`.page` needs gradio, the rest does not."""
