#!/usr/bin/python
# Copyright the Holdfast contributors
# SPDX-License-Identifier: Apache-2.0
"""A host's private key and its certificate, in one file that is replaced in one step; the key is made there and never leaves."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: key_pair
short_description: Makes a private key on the host and keeps it with its certificate in one file
description:
  - V(request) makes a new key beside the file and returns a certificate request for it; the old pair stays in use.
  - V(install) puts the signed certificate and the new key into the file, in one step, so that nobody ever reads a key with
    another key's certificate.
  - Needs nothing on the host but Python and the program openssl.
version_added: "0.2.0"
author: Holdfast contributors (@holdfast)
options:
  path:
    description: The file, in PEM, the certificate first.
    type: path
    required: true
  action:
    description: What to do.
    type: str
    required: true
    choices: [request, install]
  name:
    description: In whose name the request is made (its common name).
    type: str
    default: ""
  certificate:
    description: The signed certificate, in PEM.
    type: str
    default: ""
extends_documentation_fragment: [ansible.builtin.files]
attributes:
  check_mode:
    description: Says that it would change, writes nothing.
    support: full
  diff_mode:
    description: A key is never shown.
    support: none
"""

EXAMPLES = r"""
- name: Make a key and a request
  holdfast.gateway.key_pair:
    path: /etc/holdfast/tls/uplink.pem
    action: request
    name: 3f0a6a86-3c8b-4dc1-9b7e-0d8f5f0a1c11
  register: made
"""

RETURN = r"""
request:
  description: The certificate request, in PEM; empty in check mode.
  returned: action is request
  type: str
"""

import os  # noqa: E402  # Ansible wants its documents first
import tempfile  # noqa: E402  # as above
from pathlib import Path  # noqa: E402  # as above

from ansible.module_utils.basic import AnsibleModule  # noqa: E402  # as above

CURVE = "P-256"


def openssl(module, *words, given=""):
    """What openssl answers."""
    program = module.get_bin_path("openssl", required=True)
    return module.run_command([program, *words], data=given, check_rc=True, binary_data=True)[1]


def aside(path):
    """Where the next key waits for its certificate."""
    return Path(path + ".next")


def request(module, path, name):
    """A new key, and the request for its certificate. A key that waits from a play that was cut short is made anew."""
    key = openssl(module, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + CURVE)
    write(module, aside(path), key, {})
    return openssl(module, "req", "-new", "-sha256", "-key", str(aside(path)), "-subj", "/CN=" + name)


def install(module, path, certificate):
    """The pair takes the place of the one before, if they belong together."""
    if not aside(path).exists():
        module.fail_json(msg=f"{aside(path)}: there is no key for this certificate: make the request anew")
    of_key = openssl(module, "pkey", "-in", str(aside(path)), "-pubout")
    of_certificate = openssl(module, "x509", "-noout", "-pubkey", given=certificate)
    if of_key != of_certificate:
        module.fail_json(msg=f"{path}: the certificate is for another key than the one made here: make the request anew")
    attributes = module.load_file_common_arguments(module.params, path=path)
    write(module, Path(path), certificate + aside(path).read_text(), attributes)
    aside(path).unlink()


def write(module, path, content, attributes):
    """Aside with owner and mode, to the disk, then renamed."""
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=".")  # mode 0600
        with os.fdopen(number, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(number)
        if attributes:
            module.set_fs_attributes_if_different(dict(attributes, path=name), False)
        Path(name).rename(path)
    except OSError as error:
        module.fail_json(msg=f"{path}: {error}: the pair was not changed")


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "action": {"type": "str", "required": True, "choices": ["request", "install"]},
            "name": {"type": "str", "default": ""},
            "certificate": {"type": "str", "default": ""},
        },
        add_file_common_args=True,
        supports_check_mode=True,
        required_if=[("action", "request", ["name"]), ("action", "install", ["certificate"])],
    )
    path = module.params["path"]
    if module.check_mode:
        module.exit_json(changed=True, request="")
    if module.params["action"] == "install":
        install(module, path, module.params["certificate"])
        module.exit_json(changed=True)
    module.exit_json(changed=True, request=request(module, path, module.params["name"]))


if __name__ == "__main__":
    main()
