"""A web page, and the same over HTTP, to generate with: gradio's, as the extra `app`."""
