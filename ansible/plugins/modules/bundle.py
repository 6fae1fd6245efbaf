#!/usr/bin/python
# Copyright the Holdfast contributors
# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle on the controller: verifies it whole, and says where the verified copies of its members lie."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle
short_description: Verifies a Holdfast bundle and opens it on the controller
description:
  - Verifies the Ed25519 signature of a bundle before anything else in it is read, then each member while it is copied
    to a private folder on the controller. What was hashed is what later tasks use.
  - Refuses a bundle that is altered, unsigned, signed by another key, of another product or format, older than what is
    there, or made without what the hosts need. Each refusal says what, where and what to do.
  - Runs on the controller, so give the task C(delegate_to=localhost) and C(run_once=true).
version_added: "0.2.0"
author: Holdfast contributors (@holdfast)
requirements: [cryptography]
options:
  path:
    description: The bundle's file on the controller.
    type: path
    required: true
  keys:
    description: Files with the public keys (PEM) of those who may make bundles. One of them must have signed.
    type: list
    elements: path
    required: true
    no_log: false
  cache:
    description: The private folder that opened bundles are copied to. It is made with mode 0700.
    type: path
    default: ~/.cache/holdfast/bundles
  newer_than:
    description: The version that is there. A bundle with an older one is refused.
    type: str
    default: ""
  allow_downgrade:
    description: Whether an older version than O(newer_than) may be opened all the same.
    type: bool
    default: false
  suites:
    description: Debian suites that the bundle must hold packages for, such as V(bookworm).
    type: list
    elements: str
    default: []
  arches:
    description: Machines that the bundle must hold, as C(ansible_facts.architecture) names them, such as V(x86_64).
    type: list
    elements: str
    default: []
  pythons:
    description: Pythons that the bundle must hold wheels for, such as V(3.11).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Verifies everything, copies nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Open the bundle on the controller
  holdfast.gateway.bundle:
    path: holdfast-0.2.0.bundle
    keys: [keys/holdfast.pem]
  delegate_to: localhost
  run_once: true
  register: opened
"""

RETURN = r"""
version:
  description: The version of Holdfast in the bundle.
  returned: success
  type: str
digest:
  description: SHA-256 of the bundle's SHA256SUMS, which names everything in it.
  returned: success
  type: str
key:
  description: The file of the key that signed.
  returned: success
  type: str
folder:
  description: Where the verified copies lie; empty in check mode when they are not there yet.
  returned: success
  type: str
files:
  description: Each member's path in the bundle, and the path of its verified copy on the controller.
  returned: success
  type: dict
digests:
  description: Each member's path in the bundle, and its SHA-256.
  returned: success
  type: dict
about:
  description: What bundle.json says (suites, arches, pythons, contents).
  returned: success
  type: dict
"""

import traceback  # noqa: E402  # Ansible wants its documents first

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402  # as above
from ansible_collections.holdfast.gateway.plugins.module_utils import bundle  # noqa: E402  # as above

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "keys": {"type": "list", "elements": "path", "required": True, "no_log": False},
    "cache": {"type": "path", "default": "~/.cache/holdfast/bundles"},
    "newer_than": {"type": "str", "default": ""},
    "allow_downgrade": {"type": "bool", "default": False},
    "suites": {"type": "list", "elements": "str", "default": []},
    "arches": {"type": "list", "elements": "str", "default": []},
    "pythons": {"type": "list", "elements": "str", "default": []},
}


def opened(given, check_mode):
    """The bundle, verified; in check mode nothing is copied, and a copy that is there is told as it is."""
    wanted = bundle.Wanted(given["newer_than"], given["allow_downgrade"], given["suites"], given["arches"], given["pythons"])
    if not check_mode:
        return bundle.unpack(given["path"], given["keys"], given["cache"], wanted)
    return bundle.foresee(given["path"], given["keys"], given["cache"], wanted)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if bundle.CRYPTOGRAPHY is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception="".join(traceback.format_exception(bundle.CRYPTOGRAPHY)))
    try:
        found = opened(module.params, module.check_mode)
    except bundle.Refused as refusal:
        module.fail_json(msg=str(refusal))
    module.exit_json(
        changed=found.changed,
        version=found.version,
        digest=found.digest,
        key=found.key,
        folder=found.folder,
        files=found.files,
        digests=found.sums,
        about=found.about,
    )


if __name__ == "__main__":
    main()
