"""What was made from what, by hash: files written whole or not at all, and manifests that chain.

Every artefact is a folder with a `manifest.json`, written last. `content` is the hash of the
folder's files, `record` the hash of what the manifest claims about them:

    content = H(H(file) and path, for every file)
    record  = H(kind, content, settings, seed, content and record of each input)

Neither depends on time or machine, so two equal runs have equal hashes. A record includes the
records of its inputs, so the last artefact vouches for the whole chain down to the plant. H is
SHA-256; content is what coreutils give for `sha256sum -z FILE... | sha256sum`, files sorted.
"""

from physai.provenance.chain import Link, check_chain
from physai.provenance.hashing import sha256_file, sha256_folder, sha256_source
from physai.provenance.manifest import (
    Source,
    is_complete,
    locate,
    read_manifest,
    write_manifest,
)
from physai.provenance.storage import (
    atomic_folder,
    atomic_write,
    read_json,
    remove_stale,
    write_json,
    writing,
)

__all__ = [
    "Link",
    "Source",
    "atomic_folder",
    "atomic_write",
    "check_chain",
    "is_complete",
    "locate",
    "read_json",
    "read_manifest",
    "remove_stale",
    "sha256_file",
    "sha256_folder",
    "sha256_source",
    "write_json",
    "write_manifest",
    "writing",
]
