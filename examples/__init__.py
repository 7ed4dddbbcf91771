"""Code that shows the library at work; documentation takes its snippets from here."""
