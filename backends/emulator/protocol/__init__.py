"""AWS's protocols, driven by botocore's service models: HTTP → an operation and its members, and back.

``json`` 1.1, ``rest-json``, ``rest-xml`` and ``query``, as the model of a service says, and event streams. What a
reply may look like is proved by botocore's own parsers in the tests. Source: the Smithy specifications of the AWS
protocols, https://smithy.io/2.0/aws/protocols/index.html.
"""
