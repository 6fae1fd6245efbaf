"""Configuration in revisions: nothing that is applied can lock anybody out.

``document`` reads a document and judges it; ``plan`` says what it would change and cost; ``decide`` says what runs at a start and
how long a trial has left (both pure); ``usable`` looks at what a document names; ``store`` keeps what was applied; ``revisions``
joins them into apply, confirm, go back; ``console`` answers those who have a shell on the gateway.
"""
