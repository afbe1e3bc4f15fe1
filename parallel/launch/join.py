"""The command that a person pastes on a machine which has only Python.  A pure function.

It connects to the master, asks for slave.pyz (slave/handshake.py, `FETCH`), and runs what came if, and only if, its
SHA-256 is the one in the command; so the file, which is no secret, needs no encryption.  Who sends for ever, or drips,
is left for the next address.  As long as the slave runs it
lies in a folder of its own, which only this user can write to.  The command holds no path and no secret: the slave asks
for the token.

It is one line without double quotes, dollar signs, backquotes, exclamation marks and percent signs between its double
quotes, so that any shell passes it on as it is; and Pythons that are too old understand enough of it to say so.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from slave.handshake import FETCH, GREETING_SIZE

_SECONDS, _MOST = 30, 1_000_000  # for an address to send the file, and bytes from it: it may be a stranger's

_PROGRAM = """\
import sys
if sys.version_info<(3,9):sys.exit('slave: this is Python '+sys.version.split()[0]+'; a slave needs 3.9 or newer')
sys.path=[p for p in sys.path if p]
import hashlib,os,runpy,socket,tempfile,time
w=[]
for a in sys.argv[1:]:
 h,c,p=a.rpartition(':')
 try:
  if not c:continue
  d=b'';e=time.time()+{seconds}
  with socket.create_connection((h.strip('[]'),p),9) as s:
   s.sendall({fetch!r})
   for b in iter(lambda:s.recv(65536),b''):
    d+=b
    if time.time()>e:raise OSError('it takes too long')
    if len(d)>{most}:break
  d=d[{skip}:]
  if hashlib.sha256(d).hexdigest()=='{hash}':break
  w+=[a+': what came is not the slave program that this command names']
 except OSError as e:w+=[a+': '+str(e)]
else:sys.exit('slave: the slave program cannot be fetched: '+'; '.join(w))
with tempfile.TemporaryDirectory(prefix='parallel-slave-') as t:
 f=os.path.join(t,'slave.pyz')
 with open(f,'wb') as o:n=o.write(d)
 runpy.run_path(f,None,'__main__')
"""


def join_command(
    addresses: Sequence[str], master: str, encrypt: bool, file_hash: str, flags: Sequence[str] = ()
) -> str:
    """The command.  ``master``: how its fingerprint begins; ``file_hash``: the SHA-256 of slave.pyz, as hex digits.

    ``flags``: of the interpreter, so that a task runs there as it would here.
    """
    program = _PROGRAM.format(fetch=FETCH, skip=GREETING_SIZE, seconds=_SECONDS, most=_MOST, hash=file_hash)
    code = "exec('''" + program.replace("\n", "\\n") + "''')"
    words = [*map(shlex.quote, addresses), "--master", master]  # [::1] is a pattern to a shell
    python = " ".join(["python3", *map(shlex.quote, flags), "-c"])
    return " ".join([f'{python} "{code}"', *words, *([] if encrypt else ["--no-encryption"])])
