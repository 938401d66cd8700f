"""Windows guests: what can be known and done offline. An offline tool can't generalize Windows; it
can tell whether Sysprep did, clean up after it, and arrange that Windows does it itself.

Nothing here has been run against a real Windows: the rules are from Microsoft's documentation
("Windows Setup States", "Sysprep process overview"), the mechanics were tried on phony guests.
"""
