/// Entries of a tar, parsed by libarchive; nothing is written here.
internal import CArchive
internal import Glibc

/// What an entry is.
enum TarEntryKind {
    case file, folder, link, hardLink
    /// Devices, pipes and sockets.
    case other
}

/// One entry's head.
struct TarEntry {
    let path: String
    let kind: TarEntryKind
    /// What a link says, or the path a hard link is to.
    let target: String
    let size: Int
    let mode: UInt32
    let modified: timespec
    /// Names and values; only `user.` ones.
    let attributes: [(name: String, value: [UInt8])]
}

/// Reads a tar from a layer's decompressed bytes.
final class TarReader {
    private let archive: OpaquePointer
    private let source: LayerDecompressor
    private let buffer: UnsafeMutableRawBufferPointer
    private let fail: (ImageError.Kind, String, String?) -> ImageError
    private var failure: ImageError?
    private var hasEnded = false
    private var lastSize = 0

    // SAFETY: a locale is made once and only read.
    /// The locale that names are turned into, in which they stay what they are.
    private struct UTF8Locale: @unchecked Sendable {
        let locale = andiron_utf8_locale()
    }
    private static let utf8 = UTF8Locale()

    /// Bytes decompressed at a time.
    private static let bufferByteCount = 128 << 10

    init(
        source: LayerDecompressor, fail: @escaping (ImageError.Kind, String, String?) -> ImageError
    ) throws(ImageError) {
        guard let archive = archive_read_new() else { throw fail(.store, "libarchive has no memory", nil) }
        self.archive = archive
        self.source = source
        self.fail = fail
        buffer = .allocate(byteCount: Self.bufferByteCount, alignment: 16)
        andiron_use_locale(Self.utf8.locale)
        archive_read_support_format_tar(archive)
        archive_read_support_format_empty(archive)
        archive_read_set_options(archive, "tar:hdrcharset=UTF-8")
        let me = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: the archive is freed in deinit.
        let opened = archive_read_open(archive, me, nil, Self.read, nil)
        if let failure { throw failure }
        guard opened == ARCHIVE_OK else { throw damaged() }
    }

    deinit {
        archive_read_free(archive)
        buffer.deallocate()
    }

    private static let read:
        @convention(c) (
            OpaquePointer?, UnsafeMutableRawPointer?, UnsafeMutablePointer<UnsafeRawPointer?>?
        ) -> Int = { archive, context, result in
            guard let context, let result else { return -1 }
            let me = Unmanaged<TarReader>.fromOpaque(context).takeUnretainedValue()  // SAFETY: see init.
            do throws(ImageError) {
                let count = try me.read()
                result.pointee = UnsafeRawPointer(me.buffer.baseAddress)
                return count
            } catch {
                me.failure = error
                return -1
            }
        }

    /// The next bytes. A tar that ends right after its last file, as umoci writes them, is filled up to a whole block.
    private func read() throws(ImageError) -> Int {
        let count = try source.read(into: buffer)
        if count > 0 || hasEnded { return count }
        hasEnded = true
        let rest = source.byteCount % 512
        if rest == 0 { return 0 }
        buffer[..<(512 - rest)].initializeMemory(as: UInt8.self, repeating: 0)
        return 512 - rest
    }

    /// Whether what was filled up is padding, and not a part of the last file.
    private var endsWhole: Bool {
        let rest = source.byteCount % 512
        return rest == 0 || lastSize % 512 != 0 && rest >= lastSize % 512
    }

    private func damaged() -> ImageError {
        let words = archive_error_string(archive).map { String(cString: $0) } ?? "unknown"
        return fail(.verification, "the tar is damaged: \(words)", "the image was pushed wrong")
    }

    /// The next entry; nil at the end.
    func next() throws(ImageError) -> TarEntry? {
        var entry: OpaquePointer?
        let result = archive_read_next_header(archive, &entry)
        if let failure { throw failure }
        if result == ARCHIVE_EOF {
            guard endsWhole else {
                throw fail(.verification, "the tar ends in the middle of a file", "the image was pushed wrong")
            }
            return nil
        }
        guard result == ARCHIVE_OK || result == ARCHIVE_WARN, let entry else { throw damaged() }
        lastSize = Int(archive_entry_size(entry))
        guard let name = archive_entry_pathname(entry) else {
            throw fail(.hostileLayer, "an entry has a name that is no text", "is this image yours?")
        }
        return TarEntry(
            path: String(cString: name), kind: kind(entry), target: target(entry), size: Int(archive_entry_size(entry)),
            mode: archive_entry_perm(entry),
            modified: timespec(tv_sec: archive_entry_mtime(entry), tv_nsec: archive_entry_mtime_nsec(entry)),
            attributes: archive_entry_xattr_count(entry) == 0 ? [] : attributes(entry))
    }

    private func kind(_ entry: OpaquePointer) -> TarEntryKind {
        if archive_entry_hardlink(entry) != nil { return .hardLink }
        switch archive_entry_filetype(entry) & S_IFMT {
        case S_IFREG: return .file
        case S_IFDIR: return .folder
        case S_IFLNK: return .link
        default: return .other
        }
    }

    private func target(_ entry: OpaquePointer) -> String {
        if let hard = archive_entry_hardlink(entry) { return String(cString: hard) }
        return archive_entry_symlink(entry).map { String(cString: $0) } ?? ""
    }

    /// Only attributes a user may set are kept; `security.capability` and the like are nowhere.
    private func attributes(_ entry: OpaquePointer) -> [(name: String, value: [UInt8])] {
        var found: [(name: String, value: [UInt8])] = []
        archive_entry_xattr_reset(entry)
        var name: UnsafePointer<CChar>?
        var value: UnsafeRawPointer?
        var size = 0
        while archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK {
            guard let name, let value, found.count < 64, size <= 65536 else { continue }
            let text = String(cString: name)
            if text.hasPrefix("user.") {
                found.append((text, Array(UnsafeRawBufferPointer(start: value, count: size))))
            }
        }
        return found
    }

    /// The next part of the current entry's contents and its place in the file; nil at the end.
    func block() throws(ImageError) -> (bytes: UnsafeRawBufferPointer, offset: Int)? {
        var start: UnsafeRawPointer?
        var size = 0
        var offset: Int64 = 0
        let result = archive_read_data_block(archive, &start, &size, &offset)
        if let failure { throw failure }
        if result == ARCHIVE_EOF { return nil }
        guard result == ARCHIVE_OK || result == ARCHIVE_WARN else { throw damaged() }
        return (UnsafeRawBufferPointer(start: start, count: size), Int(offset))
    }
}
