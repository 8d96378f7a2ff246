"""What `manage.py doctor` and the status page look at; each module registers its own."""
