"""Prints the cookie that express-session would set for a session's id.

    python3 cookie.py ID SECRET
"""
import base64
import hashlib
import hmac
import sys
from urllib.parse import quote

id, secret = sys.argv[1:3]
digest = hmac.new(secret.encode(), id.encode(), hashlib.sha256).digest()
signature = base64.b64encode(digest).decode().rstrip("=")
print(f"connect.sid={quote(f's:{id}.{signature}', safe='')}")
