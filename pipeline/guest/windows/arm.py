"""Make a specialized Windows run Sysprep by itself at its next boot, with nothing but its own
programs.

    boot 1   before the logon, as SetupType is 2, Windows runs SYSTEM\\Setup\\CmdLine as SYSTEM:
             setup.cmd sets both back, registers a task for the next start, and restarts
    boot 2   the task runs sysprep.cmd: it unregisters itself, waits until the machine has settled,
             and runs sysprep /generalize /oobe /shutdown /unattend:...

In two steps, because Sysprep refuses to run while Setup is in progress. Every step undoes itself
before it does anything that can fail, so that nothing loops; the second one powers the machine off
whether Sysprep succeeded or not, and what was reached is told from the disk.

Mechanics: Microsoft, "Sysprep command-line options"; KB 939857 (SetupType and CmdLine); schtasks.
"""

from pipeline.errors import InvalidParameter, Refused
from pipeline.guest.windows import registry
from pipeline.guest.windows.classify import Classification, Verdict
from pipeline.guest.windows.tree import Tree, decoded
from pipeline.ports import Guest

DIRECTORY = "/Windows/Setup/Galleria"
IN_GUEST = "%SystemRoot%\\Setup\\Galleria"
COMMAND = f"cmd.exe /d /c {IN_GUEST}\\setup.cmd"
RUN_THEN_LOGON = 2  # SetupType
UNATTEND_LIMIT = 1 << 20  # bytes
ARCHITECTURES = {"x86_64": "amd64", "i386": "x86", "aarch64": "arm64"}
TASK = "galleria-sysprep"
SERVICE = "HKLM\\SYSTEM\\CurrentControlSet\\Services\\" + TASK

SETUP = f"""\
@echo off
rem Written by galleria: registers Sysprep for the next start, once.
reg add HKLM\\SYSTEM\\Setup /v SetupType /t REG_DWORD /d 0 /f
reg add HKLM\\SYSTEM\\Setup /v CmdLine /t REG_SZ /d "" /f
reg add HKLM\\SYSTEM\\Setup /v SystemSetupInProgress /t REG_DWORD /d 0 /f
schtasks /create /f /tn {TASK} /ru SYSTEM /rl HIGHEST /sc ONSTART ^
  /tr "cmd.exe /d /c {IN_GUEST}\\sysprep.cmd" >> "{IN_GUEST}\\log.txt" 2>&1
if not errorlevel 1 goto restart
rem The task scheduler may not be up yet. A service does as well: the service control manager
rem gives up on cmd.exe, which is no service, but not on what it has started.
reg add {SERVICE} /v Type /t REG_DWORD /d 16 /f
reg add {SERVICE} /v Start /t REG_DWORD /d 2 /f
reg add {SERVICE} /v ErrorControl /t REG_DWORD /d 0 /f
reg add {SERVICE} /v ObjectName /t REG_SZ /d LocalSystem /f
reg add {SERVICE} /v ImagePath /t REG_EXPAND_SZ /f ^
  /d "%SystemRoot%\\System32\\cmd.exe /d /c start /b cmd.exe /d /c {IN_GUEST}\\sysprep.cmd"
:restart
shutdown /r /t 5 /f
"""
SYSPREP = f"""\
@echo off
rem Written by galleria: runs Sysprep once, and powers the machine off.
schtasks /delete /f /tn {TASK}
reg delete {SERVICE} /f
rem Services and updates that a start sets going: Sysprep fails when it comes between.
ping -n 120 127.0.0.1 > nul
rmdir /s /q "%SystemRoot%\\Panther"
"%SystemRoot%\\System32\\Sysprep\\sysprep.exe" /generalize /oobe /shutdown /quiet ^
  /unattend:"{IN_GUEST}\\unattend.xml"
echo sysprep ended with %errorlevel% >> "{IN_GUEST}\\log.txt"
rem Sysprep powers off by itself when it succeeds; when it did not, it is for whoever waits.
ping -n 600 127.0.0.1 > nul
shutdown /s /t 5 /f
"""
GENERATED = """\
<?xml version="1.0" encoding="utf-8"?>
<!-- Written by galleria: asks at the first boot only for what can't be known. No passwords. -->
<unattend xmlns="urn:schemas-microsoft-com:unattend">
  <settings pass="oobeSystem">
    <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="{architecture}"
        publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
      <OOBE>
        <HideEULAPage>true</HideEULAPage>
        <HideWirelessSetupInOOBE>true</HideWirelessSetupInOOBE>
        <ProtectYourPC>3</ProtectYourPC>
      </OOBE>
    </component>
  </settings>
</unattend>
"""


def check(found: Classification, *, force: bool = False) -> None:
    """Raises Refused when Sysprep can't be expected to run, or the guest can't be written."""
    if found.armed:
        raise Refused("the guest is armed already: its next boot runs Sysprep", hint="boot it")
    for obstacle in found.obstacles:
        if obstacle.unsafe or not force:
            raise Refused(f"the guest cannot be armed: {obstacle.what}", hint=obstacle.hint)
    if found.verdict is Verdict.GENERALIZED:
        raise Refused(
            "the guest is generalized already", hint="galleria generalize cleans up after Sysprep"
        )
    if found.verdict is not Verdict.SPECIALIZED and not force:
        raise Refused(
            f"the guest's state is {found.verdict.value}: Sysprep would fail, or make it worse",
            hint="galleria inspect shows the evidence; start from a guest that was never "
            "generalized, or use --force",
        )


def arm(guest: Guest, architecture: str, unattend: bytes | None) -> tuple[str, ...]:
    """Put the hook into a guest that is mounted to be written; returns what was written."""
    tree = Tree(guest)
    system = registry.hive_path(tree, "SYSTEM")
    windows = tree.at("/Windows")
    if system is None or windows is None:
        raise Refused("the guest has no SYSTEM hive", hint="is it a Windows?")
    answers = _answers(architecture) if unattend is None else unattend
    directory = f"{tree.at('/Windows/Setup') or windows + '/Setup'}/Galleria"
    guest.mkdir(directory)
    files = {"setup.cmd": _script(SETUP), "sysprep.cmd": _script(SYSPREP), "unattend.xml": answers}
    for name, content in files.items():
        guest.write(f"{directory}/{name}", content)
    # last: without the files the hook would lead nowhere
    with guest.hive(system, writable=True) as hive:
        hive.set("Setup", "CmdLine", registry.as_text(COMMAND))
        hive.set("Setup", "SetupType", registry.as_number(RUN_THEN_LOGON))
    values = (f"{system}:Setup\\CmdLine", f"{system}:Setup\\SetupType")
    return (*(f"{directory}/{name}" for name in files), *values)


def check_unattend(content: bytes) -> bytes:
    """An answer file that a person gave, as far as it can be judged without its schema."""
    if len(content) > UNATTEND_LIMIT or "<unattend" not in decoded(content):
        raise InvalidParameter(
            "the answer file has no <unattend> element, or more than 1 MiB",
            hint="Microsoft, 'Answer files (unattend.xml)'",
        )
    return content


def _answers(architecture: str) -> bytes:
    name = ARCHITECTURES.get(architecture)
    if name is None:
        raise Refused(
            f"the guest's architecture is {architecture}: no answer file is known for it",
            hint="give one with --unattend",
        )
    return GENERATED.format(architecture=name).encode()


def _script(text: str) -> bytes:
    """As cmd.exe wants it: CRLF, ASCII."""
    return text.replace("\n", "\r\n").encode("ascii")
