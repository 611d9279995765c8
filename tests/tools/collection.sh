# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Pack the working tree as it is now, for unpack_collection.
pack_collection() {
    tree_files | tar --create --file "$CACHE/collection.tar" --directory "$ROOT" --null --files-from -
}

# Unpack the collection where ansible and ansible-test look for it; they resolve symbolic links, so it is a copy.
unpack_collection() {
    mkdir -p "$COLLECTION"
    find "$COLLECTION" -mindepth 1 -delete
    tar --extract --file "$CACHE/collection.tar" --directory "$COLLECTION" --no-same-owner
}

# List the files of the working tree, NUL-separated, without those that are deleted but still in git's index.
tree_files() {
    local file
    git -c safe.directory="$ROOT" -C "$ROOT" ls-files --cached --others --exclude-standard --deduplicate -z |
        while IFS= read -r -d '' file; do
            if [[ -e $ROOT/$file || -L $ROOT/$file ]]; then printf '%s\0' "$file"; fi
        done
}
