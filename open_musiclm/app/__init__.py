"""A web page to generate music, and an HTTP API, by gradio (the extra `app`)."""
