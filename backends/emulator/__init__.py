"""SageMaker on the AWS wire: unmodified AWS clients work against the engine and the store of this machine.

:mod:`~backends.emulator.app` is the chain that every request passes, :mod:`~backends.emulator.protocol` turns HTTP
into an operation's members and back, and :mod:`~backends.emulator.services` carries the operations out.
"""
