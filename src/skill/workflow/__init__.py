"""What Snakemake needs to know and to keep."""
