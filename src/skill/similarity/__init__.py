"""Which layers are alike: hidden states, CKA between them, clusters, and how sure these are."""
