"""What galleria knows: the gallery's rules, the stages of a publish, and what happens to bytes.

Nothing here opens a process, a database, a socket or a file format; what is needed from outside is
declared in `pipeline.ports` and given by `adapters.app`.
"""
