"""Image versions."""

from adapters.server.calls import PAGE, Answer, Call, deleted, following, paged
from adapters.server.operations import begun
from pipeline.gallery import rules
from pipeline.gallery.arm import versions
from pipeline.jobs import begin
from pipeline.model import ImageVersion
from pipeline.model.names import parse_number


def list_versions(call: Call) -> Answer:
    return _listed(call, in_bin=False)


def list_soft_deleted(call: Call) -> Answer:
    """Those in the bin."""
    return _listed(call, in_bin=True)


def _listed(call: Call, *, in_bin: bool) -> Answer:
    """Newest first; the token of the next part is a version's number."""
    token = call.query.get("$skiptoken")
    before = None if token is None else parse_number(token)
    found = call.session.gallery.list_versions(
        call.definition, limit=PAGE + 1, before=before, deleted=in_bin
    )
    document = versions.soft_deleted if in_bin else versions.version
    documents = [document(item) for item in found[:PAGE]]
    return paged(call, documents, following(found, PAGE, lambda item: str(item.number)))


def get_version(call: Call) -> Answer:
    """One that is not in the bin."""
    found = call.session.gallery.get_version(call.version)
    there = rules.existing(found if found.soft_deleted is None else None, call.version)
    return Answer(_told(call, there))


def put_version(call: Call) -> Answer:
    body = versions.read_version(call.body)
    context = call.session.context
    return _begun(call, begin.put_version(call.version, body, call.body, context))


def patch_version(call: Call) -> Answer:
    body = versions.read_version(call.body)
    return _begun(call, begin.patch_version(call.version, body, call.session.context))


def delete_version(call: Call) -> Answer:
    permanent = call.query.get("bypassSoftDelete", "").lower() == "true"

    def delete() -> Answer:
        made = begin.delete_version(call.version, call.session.context, permanent=permanent)
        if made.run is None:
            return Answer()
        return begun(call, made.run, made.version.location, Answer(status=202))

    return deleted(delete)


def _begun(call: Call, made: begin.Begun) -> Answer:
    answer = Answer(_told(call, made.version), 201 if made.made else 200)
    return answer if made.run is None else begun(call, made.run, made.version.location, answer)


def _told(call: Call, version: ImageVersion) -> dict[str, object]:
    expand = call.query.get("$expand", "").lower()
    return versions.version(
        version, status="replicationstatus" in expand, uefi="uefisettings" in expand
    )
