"""How several processes of one run meet, agree on what they do, and watch each other."""
