"""Consoles for people at the gateway: clients of the local API that know nothing of the gateway but what it answers.

``holdfast-console`` is the plain one: lines of text and words, for any terminal, down to a serial line of 9,600 baud. It is the whole
of what a technician's login leads to, so it starts no program, and reads and writes no file.
"""
