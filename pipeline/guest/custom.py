"""What only the user can know: paths of their own, and scripts of their own.

A script runs as root with the guest's own programs, chrooted into its file systems, in the
appliance: no network, nothing of the host in sight. Even so it is code that the guest's owner, and
whoever changed the guest's programs, chooses: it can spoil the image, and makes it differ from run
to run.
"""

from pipeline.guest.operations import Action, Context, Editor, Operation


def treat_paths(edit: Editor, context: Context) -> None:
    edit.remove_all(*context.policy.remove_paths)
    for pattern in context.policy.truncate_paths:
        for path in edit.guest.glob(pattern):
            edit.truncate(edit.follow(path))


def run_scripts(edit: Editor, context: Context) -> None:
    for script in context.policy.scripts:
        edit.guest.run(script.text)
        edit.record(Action.RAN, script.name)


OPERATIONS = (
    Operation(
        "extra-paths",
        "Remove and truncate the paths that the build spec names",
        "Applications keep secrets where only their owner knows.",
        treat_paths,
    ),
    Operation(
        "scripts",
        "Run the scripts that the build spec names, inside the guest (none by default)",
        "Some state only the guest's own programs can reset.",
        run_scripts,
    ),
)
