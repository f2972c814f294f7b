"""Ways to transfer: what is trained, and when. One file each."""
