#!/usr/bin/python
# Copyright the Holdfast contributors
# SPDX-License-Identifier: Apache-2.0
"""A site's certificate authority on the controller: makes it, judges and signs certificates, revokes them, and brings on a successor."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: certificate
short_description: Keeps a site's certificate authority on the controller
description:
  - Makes the authority, says whether a host's certificate is due, signs requests, revokes, and replaces the authority by a next one.
  - A host's private key never comes here. Only the public key is taken from a request, once the request has proved to have the
    private one; names, usage and days are those of the task.
  - Runs on the controller, so give the task C(delegate_to=localhost).
version_added: "0.2.0"
author: Holdfast contributors (@holdfast)
requirements: ["cryptography >= 42"]
options:
  folder:
    description: Where the authority lies. It is made with mode 0700; keep a backup of it.
    type: path
    required: true
  action:
    description:
      - V(authority) has the authority exist.
      - V(judge) says by RV(ignore:changed) whether a host needs a certificate, and touches nothing.
      - V(sign) signs a request.
      - V(revoke) revokes what was issued to O(revoked).
      - V(succeed) brings a succession to a next authority to O(stage).
    type: str
    required: true
    choices: [authority, judge, sign, revoke, succeed]
  passphrase:
    description: Opens the authority's private key; empty where it has none.
    type: str
    default: ""
  authority_name:
    description: The authority's name, for people. The day is added.
    type: str
    default: Holdfast site authority
  authority_days:
    description: How long a new authority is valid, in days.
    type: int
    default: 7305
  name:
    description: Whom the certificate is for (its common name), such as a gateway's UUID.
    type: str
    default: ""
  names:
    description: Host names and addresses in the certificate, for servers.
    type: list
    elements: str
    default: []
  usage:
    description: As what its owner may appear.
    type: str
    choices: [client, server, both]
    default: client
  days:
    description: How long a new certificate is valid, in days. None outlives its authority.
    type: int
    default: 398
  renew_within_days:
    description: A certificate that ends within so many days is due.
    type: int
    default: 60
  renew:
    description: Whether one that is still good is due all the same.
    type: bool
    default: false
  current:
    description: The certificate that the host has, in PEM; empty for none.
    type: str
    default: ""
  request:
    description: The host's certificate request, in PEM.
    type: str
    default: ""
  revoked:
    description: Names or serial numbers (hexadecimal). All that was issued to a name is revoked, but not O(current).
    type: list
    elements: str
    default: []
  stage:
    description:
      - V(prepared) makes a next authority, which is trusted and does not issue yet.
      - V(switched) lets it issue; the one before is trusted still.
      - V(retired) ends the trust in the one before.
    type: str
    choices: [prepared, switched, retired]
attributes:
  check_mode:
    description: Says what would change, writes nothing.
    support: full
  diff_mode:
    description: There is nothing to show; what is due is told in RV(why).
    support: none
"""

EXAMPLES = r"""
- name: Have an authority
  holdfast.gateway.certificate:
    folder: pki
    action: authority
  delegate_to: localhost
  run_once: true

- name: Sign the gateway's request
  holdfast.gateway.certificate:
    folder: pki
    action: sign
    name: 3f0a6a86-3c8b-4dc1-9b7e-0d8f5f0a1c11
    request: "{{ made.request }}"
  delegate_to: localhost
"""

RETURN = r"""
why:
  description: Why a certificate is due, or until when it is good.
  returned: action is judge
  type: str
certificate:
  description: The signed certificate, in PEM.
  returned: action is sign
  type: str
revoked:
  description: Serial numbers that were revoked now.
  returned: action is revoke
  type: list
  elements: str
trusted:
  description: Every authority that hosts shall trust, in PEM; empty in check mode where there is none yet.
  returned: always
  type: str
revocations:
  description: The revocation list of each of them, in PEM.
  returned: always
  type: str
"""

import traceback  # noqa: E402  # Ansible wants its documents first

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402  # as above
from ansible_collections.holdfast.gateway.plugins.module_utils import authority  # noqa: E402  # as above

ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    "action": {"type": "str", "required": True, "choices": ["authority", "judge", "sign", "revoke", "succeed"]},
    "passphrase": {"type": "str", "default": "", "no_log": True},
    "authority_name": {"type": "str", "default": "Holdfast site authority"},
    "authority_days": {"type": "int", "default": 7305},
    "name": {"type": "str", "default": ""},
    "names": {"type": "list", "elements": "str", "default": []},
    "usage": {"type": "str", "choices": list(authority.USAGES), "default": "client"},
    "days": {"type": "int", "default": 398},
    "renew_within_days": {"type": "int", "default": 60},
    "renew": {"type": "bool", "default": False},
    "current": {"type": "str", "default": ""},
    "request": {"type": "str", "default": ""},
    "revoked": {"type": "list", "elements": "str", "default": []},
    "stage": {"type": "str", "choices": list(authority.STAGES)},
}


def made(site, given, check_mode):
    """The authority exists."""
    if check_mode:
        return {"changed": site.foresee()}
    return {"changed": site.create(given["authority_name"], given["authority_days"])}


def judged(site, given, check_mode):
    """Whether the host needs a certificate."""
    found = site.judge(given["current"], subject(given), renew_within_days=given["renew_within_days"], renew=given["renew"])
    return {"changed": found.due, "why": found.why}


def signed(site, given, check_mode):
    """A certificate for the host's key."""
    if check_mode:
        return {"changed": True, "certificate": ""}
    return {"changed": True, "certificate": site.sign(given["request"], subject(given), given["days"])}


def revoked(site, given, check_mode):
    """What was issued to these is revoked."""
    new = site.revoke(given["revoked"], keep=given["current"], dry=check_mode)
    return {"changed": bool(new), "revoked": new}


def succeeded(site, given, check_mode):
    """The succession is where it shall be."""
    if check_mode:
        return {"changed": site.foresee(given["stage"])}
    return {"changed": site.succeed(given["stage"], given["authority_name"], given["authority_days"])}


ACTIONS = {"authority": made, "judge": judged, "sign": signed, "revoke": revoked, "succeed": succeeded}


def subject(given):
    return authority.Subject(given["name"], tuple(given["names"]), given["usage"])


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_if=[
            ("action", "judge", ["name"]),
            ("action", "sign", ["name", "request"]),
            ("action", "revoke", ["revoked"]),
            ("action", "succeed", ["stage"]),
        ],
    )
    if authority.CRYPTOGRAPHY is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception="".join(traceback.format_exception(authority.CRYPTOGRAPHY)))
    given = module.params
    site = authority.Authority(given["folder"], passphrase=given["passphrase"])
    try:
        told = ACTIONS[given["action"]](site, given, module.check_mode)
        there = site.exists()
        module.exit_json(trusted=site.trusted if there else "", revocations=site.revocations if there else "", **told)
    except authority.Refused as refusal:
        module.fail_json(msg=str(refusal))


if __name__ == "__main__":
    main()
