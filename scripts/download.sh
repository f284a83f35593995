# Functions for the download scripts: resumable, checked by hash, and clear where there is no network.

# download URL FILE: goes on where an earlier try stopped.
download() {
    local url=$1 file=$2
    mkdir -p "$(dirname "$file")"
    echo "downloading $url"
    if ! curl --fail --location --retry 5 --retry-connrefused --connect-timeout 20 --continue-at - \
        --output "$file.part" "$url"; then
        echo "error: cannot download $url; are you online? Run the same command again to go on where it stopped" >&2
        exit 2
    fi
}

# check PROGRAM HASH FILE: the file keeps its final name only if its hash, or the hash's beginning, is right.
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

# fetch PROGRAM HASH URL FILE: downloads and checks, unless the file is there.
fetch() {
    if [ -f "$4" ]; then
        echo "$4 is there already"
        return
    fi
    download "$3" "$4"
    check "$1" "$2" "$4"
}

# unpack ZIP FOLDER: once.
unpack() {
    if [ -f "$1.unpacked" ]; then
        echo "$1 is unpacked already"
        return
    fi
    unzip -q -n "$1" -d "$2" && touch "$1.unpacked" && echo "unpacked into $2"
}
