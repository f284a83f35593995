# Functions for the download scripts: downloads are resumable and checked by hash.

# download URL FILE: resumes an earlier download.
download() {
    local url=$1 file=$2 status
    mkdir -p "$(dirname "$file")"
    echo "downloading $url"
    # 416: the file is complete, but not checked yet.
    status=$(curl --fail --location --retry 3 --retry-connrefused --connect-timeout 20 --continue-at - \
        --output "$file.part" --write-out '%{http_code}' "$url") || [ "$status" = 416 ] || {
        echo "error: cannot download $url; are you online? Run the same command again to resume" >&2
        exit 2
    }
}

# check PROGRAM HASH FILE: renames FILE.part to FILE if its hash starts with HASH.
check() {
    local program=$1 expected=$2 file=$3 found
    found=$("$program" "$file.part" | cut -d ' ' -f 1)
    case "$found" in
    "$expected"*) mv "$file.part" "$file" && echo "wrote $file" ;;
    *)
        mv "$file.part" "$file.bad"
        echo "error: $file has the $program $found, expected $expected; kept as $file.bad. Delete it and try again" >&2
        exit 2
        ;;
    esac
}

# fetch PROGRAM HASH URL FILE: downloads and checks, unless the file exists.
fetch() {
    if [ -f "$4" ]; then
        echo "$4 already exists"
        return
    fi
    download "$3" "$4"
    check "$1" "$2" "$4"
}

# fetch_from_hub URL FILE: a file of huggingface.co, checked by the hub's hash.
fetch_from_hub() {
    local expected
    if [ ! -f "$2" ]; then
        expected=$(curl --silent --head --connect-timeout 20 "$1" | tr -d '"\r' | sed -n 's/^x-linked-etag: *//Ip') || true
        if ! [[ "$expected" =~ ^[0-9a-f]{64}$ ]]; then
            echo "error: $1 has no hash to check; are you online, and is the name right?" >&2
            exit 2
        fi
    fi
    fetch sha256sum "${expected:-}" "$1" "$2"
}

# unpack ZIP FOLDER: once; after an interruption all files are written again, for one may be half written.
unpack() {
    if [ -f "$1.unpacked" ]; then
        echo "$1 is already unpacked"
        return
    fi
    unzip -q -o "$1" -d "$2" && touch "$1.unpacked" && echo "unpacked into $2"
}
