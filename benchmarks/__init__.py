"""What the paper trains on and is measured with, read from local folders; nothing here is downloaded.

See README.md in this folder.
"""
