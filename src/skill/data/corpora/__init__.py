"""One module per corpus, or per way that it is packed."""
