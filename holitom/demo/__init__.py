"""A page to try holitom on: a Gradio app, in the extra ``holitom[demo]``."""
