#!/bin/sh
# Which: Linux's terminals (n_tty; seen with 6.18, with pseudo-terminals), by Python 3.11 and seq of coreutils 9.1 (Debian 12).
# Does: what is typed is echoed between a line and its end, though the program has written both by one write(2): with output
#   processing on, the text goes out first and its newline, as CR LF, by itself, and the echo comes in between. So of what a command
#   prints on a terminal while somebody types, `^...$` need not match a single line, however the command writes.
# Seen: of 200,000 lines of digits, each written whole, while `@` is typed, some look like `123@` + CR LF. Without echo none. Words, status 0.
set -eu
python3 - <<'END'
import os, pty, re, sys, termios, threading

WRITER = """
import os
for n in range(200000):
    os.write(1, b"%d\\n" % n)
"""


def lines(echo):
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(sys.executable, [sys.executable, "-c", WRITER])
    settings = termios.tcgetattr(fd)
    if not echo:
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(fd, termios.TCSANOW, settings)
    over = threading.Event()

    def types():
        while not over.wait(0.0005):
            try:
                os.write(fd, b"@")
            except OSError:
                return

    typist = threading.Thread(target=types)
    typist.start()
    seen = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    over.set()
    typist.join()
    os.waitpid(pid, 0)
    return seen


# Digits, what was typed, and then the end of that line: the echo stands between the text and its newline.
inside = re.compile(rb"\d@+\r\n")
with_echo = len(inside.findall(lines(True)))
without = len(inside.findall(lines(False)))
print("lines with an echo before their end:", "some" if with_echo else "none")
print("without echo:", "some" if without else "none")
sys.exit(0 if with_echo and not without else 1)
END
