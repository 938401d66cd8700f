"""The gallery as a service: what Azure's own clients talk to. A face beside the command line: it
parses requests and prints answers, and `pipeline` decides.

`app` is the application, `azure` the table of its operations; `calls` handles a request.
"""
