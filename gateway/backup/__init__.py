"""One file of everything that the gateway knows, and back: ``holdfast backup`` and ``holdfast restore``."""
