# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Puts the working tree where ansible and ansible-test find a collection; they resolve symbolic links, so it is a copy.
copy_collection() {
    tree_files | tar --create --file "$CACHE/collection.tar" --directory "$ROOT" --null --files-from -
    unpack_collection
}

# Brings the copy back to what copy_collection took, so that no step meets what an earlier one left.
unpack_collection() {
    mkdir -p "$COLLECTION"
    find "$COLLECTION" -mindepth 1 -delete
    tar --extract --file "$CACHE/collection.tar" --directory "$COLLECTION" --no-same-owner
}

# NUL-separated. A file that is deleted but still in git's index is left out.
tree_files() {
    local file
    git -c safe.directory="$ROOT" -C "$ROOT" ls-files --cached --others --exclude-standard --deduplicate -z |
        while IFS= read -r -d '' file; do
            if [[ -e $ROOT/$file || -L $ROOT/$file ]]; then printf '%s\0' "$file"; fi
        done
}
