"""Speech: corpora, manifests, reading, batches by seconds."""
