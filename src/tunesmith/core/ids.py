"""Identifiers in OpenAI's alphabets and lengths, made from an injected source of randomness."""

import base64
import random
import string

_ALPHANUMERIC = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"


class Ids:
    """Makes ids; give it a seeded `random.Random` and it repeats itself."""

    def __init__(self, randomness: random.Random | None = None) -> None:
        self._random = randomness if randomness is not None else random.SystemRandom()

    def _text(self, alphabet: str, length: int) -> str:
        # one draw for the whole text, with so many bits to spare that no letter is likelier than another
        number = self._random.getrandbits(length * 6 + 64)
        letters: list[str] = []
        for _ in range(length):
            number, place = divmod(number, len(alphabet))
            letters.append(alphabet[place])
        return "".join(letters)

    def file(self) -> str:
        """Return `file-` and 22 alphanumerics."""
        return "file-" + self._text(_ALPHANUMERIC, 22)

    def upload(self) -> str:
        """Return `upload_` and 32 hexadecimal digits."""
        return "upload_" + self._text(_HEX, 32)

    def part(self) -> str:
        """Return `part_` and 32 hexadecimal digits."""
        return "part_" + self._text(_HEX, 32)

    def job(self) -> str:
        """Return `ftjob-` and 24 alphanumerics."""
        return "ftjob-" + self._text(_ALPHANUMERIC, 24)

    def event(self) -> str:
        """Return `ftevent-` and 24 alphanumerics."""
        return "ftevent-" + self._text(_ALPHANUMERIC, 24)

    def checkpoint(self) -> str:
        """Return `ftckpt_` and 24 alphanumerics."""
        return "ftckpt_" + self._text(_ALPHANUMERIC, 24)

    def permission(self) -> str:
        """Return `cp_` and 24 alphanumerics."""
        return "cp_" + self._text(_ALPHANUMERIC, 24)

    def audit(self) -> str:
        """Return `audit_` and 24 alphanumerics."""
        return "audit_" + self._text(_ALPHANUMERIC, 24)

    def request(self) -> str:
        """Return `req_` and 32 hexadecimal digits."""
        return "req_" + self._text(_HEX, 32)

    def chat(self) -> str:
        """Return `chatcmpl-` and 29 alphanumerics."""
        return "chatcmpl-" + self._text(_ALPHANUMERIC, 29)

    def completion(self) -> str:
        """Return `cmpl-` and 29 alphanumerics."""
        return "cmpl-" + self._text(_ALPHANUMERIC, 29)

    def tool_call(self) -> str:
        """Return `call_` and 24 alphanumerics."""
        return "call_" + self._text(_ALPHANUMERIC, 24)

    def response(self) -> str:
        """Return `resp_` and 48 hexadecimal digits."""
        return "resp_" + self._text(_HEX, 48)

    def item(self, kind: str) -> str:
        """Return the id of an item of a response: what tells its kind (`msg`, `fc`), and 48 hexadecimal digits."""
        return f"{kind}_{self._text(_HEX, 48)}"

    def grader(self) -> str:
        """Return `grader-` and 12 alphanumerics, the name of a grader that was given none."""
        return "grader-" + self._text(_ALPHANUMERIC, 12)

    def outbox(self) -> str:
        """Return `evt_` and 24 alphanumerics."""
        return "evt_" + self._text(_ALPHANUMERIC, 24)

    def webhook_endpoint(self) -> str:
        """Return `whep_` and 24 alphanumerics."""
        return "whep_" + self._text(_ALPHANUMERIC, 24)

    def webhook(self) -> str:
        """Return `wh_` and 32 hexadecimal digits, the id of a delivery."""
        return "wh_" + self._text(_HEX, 32)

    def webhook_secret(self) -> str:
        """Return `whsec_` and 32 random bytes in base64."""
        return "whsec_" + base64.b64encode(self._random.getrandbits(256).to_bytes(32, "big")).decode()

    def project(self) -> str:
        """Return `proj_` and 24 alphanumerics."""
        return "proj_" + self._text(_ALPHANUMERIC, 24)

    def service_account(self) -> str:
        """Return `svc_acct_` and 24 alphanumerics."""
        return "svc_acct_" + self._text(_ALPHANUMERIC, 24)

    def key_id(self) -> str:
        """Return `key_` and 24 alphanumerics, which name a key and do not open anything."""
        return "key_" + self._text(_ALPHANUMERIC, 24)

    def key(self, kind: str | None = None) -> str:
        """Return a key's text: `sk-`, its kind if it has one, and 43 alphanumerics, which are 256 bits."""
        return f"sk-{kind}-{self._text(_ALPHANUMERIC, 43)}" if kind else "sk-" + self._text(_ALPHANUMERIC, 43)

    def scratch(self) -> str:
        """Return 32 hexadecimal digits for the name of something that is not finished yet."""
        return self._text(_HEX, 32)

    def model_tail(self) -> str:
        """Return the 8 alphanumerics that end a tuned model's name."""
        return self._text(_ALPHANUMERIC, 8)

    def token(self) -> str:
        """Return a secret of 48 alphanumerics that authorises an attempt on the channel."""
        return self._text(_ALPHANUMERIC, 48)

    def seed(self) -> int:
        """Return a training seed, 0 to 2147483647."""
        return self._random.randrange(2**31)
