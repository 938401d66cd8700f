"""Files and what file systems can do with them."""
