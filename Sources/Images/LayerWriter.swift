/// Writes a layer: a tar whose bytes depend on the files alone, gzipped, hashed both ways, into the store.
internal import CArchive
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc

/// A layer that has been written.
public struct WrittenLayer: Sendable {
    public let descriptor: Descriptor
    public let diffID: Digest
    public let path: String
}

/// A file, folder or link that goes into a layer.
struct LayerEntry {
    enum Contents {
        case folder
        case bytes([UInt8])
        case file(String)
        case link(String)
    }

    /// Without a leading slash.
    let path: String
    let contents: Contents
    var isExecutable = false
}

/// Collects entries and writes them in the order of their paths, owned by nobody, from 1970.
struct LayerWriter {
    private var entries: [String: LayerEntry] = [:]
    private let fail: (String, String?) -> ImageError

    /// Files a layer may be made of.
    static let entryLimit = 200_000
    /// Names that are never packaged.
    static let ignored: Set = ["__pycache__", ".git", ".venv", ".andiron", ".DS_Store", ".ipynb_checkpoints"]

    init(fail: @escaping (String, String?) -> ImageError) { self.fail = fail }

    var isEmpty: Bool { entries.isEmpty }

    /// Adds an entry and the folders above it.
    mutating func add(_ entry: LayerEntry) {
        var rest = entry.path[...]
        while let slash = rest.lastIndex(of: "/") {
            rest = rest[..<slash]
            let folder = String(rest)
            if entries[folder] == nil { entries[folder] = LayerEntry(path: folder, contents: .folder) }
        }
        entries[entry.path] = entry
    }

    mutating func add(_ path: String, _ text: String) {
        add(LayerEntry(path: path, contents: .bytes(Array(text.utf8))))
    }

    /// Adds a file, or a folder and what is in it, under `path`.
    mutating func add(tree source: String, as path: String) throws(ImageError) {
        var information = stat()
        guard lstat(source, &information) == 0 else {
            throw fail("'\(source)' cannot be read: \(String(cString: strerror(errno)))", nil)
        }
        switch information.st_mode & S_IFMT {
        case S_IFDIR:
            add(LayerEntry(path: path, contents: .folder))
            for name in folderEntries(source) where !Self.ignored.contains(name) {
                guard entries.count < Self.entryLimit else {
                    throw fail("'\(source)' has more than \(Self.entryLimit) files", nil)
                }
                try add(tree: "\(source)/\(name)", as: "\(path)/\(name)")
            }
        case S_IFLNK:
            var buffer = [CChar](repeating: 0, count: 4096)
            let count = readlink(source, &buffer, buffer.count)
            let target = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard !target.isEmpty, !target.hasPrefix("/"), !leadsOut(target, from: path) else {
                throw fail("'\(source)' is a link to '\(target)', which is not in the image", "copy the file instead")
            }
            add(LayerEntry(path: path, contents: .link(target)))
        case S_IFREG:
            add(LayerEntry(path: path, contents: .file(source), isExecutable: information.st_mode & 0o111 != 0))
        default: throw fail("'\(source)' is neither a file nor a folder", nil)
        }
    }

    private func leadsOut(_ target: String, from path: String) -> Bool {
        var depth = path.count { $0 == "/" }
        for part in target.split(separator: "/") where part != "." {
            depth += part == ".." ? -1 : 1
            if depth < 0 { return true }
        }
        return false
    }

    /// Writes the layer into the store; blocking.
    func write(
        to store: ContentStore, mediaType: String, annotations: [String: String]
    ) throws(ImageError) -> WrittenLayer {
        let temporary = "\(store.folder)/blobs/.\(getpid()).\(monotonicNanoseconds()).tmp"
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard file >= 0 else {
            throw fail("'\(temporary)' cannot be written: \(String(cString: strerror(errno)))", nil)
        }
        let stream = GzipStream(file: file, level: level())
        var failure: ImageError?
        for entry in entries.values.sorted(by: { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }) {
            do throws(ImageError) { try write(entry, stream) } catch {
                failure = error
                break
            }
        }
        if failure == nil { stream.write([UInt8](repeating: 0, count: 1024)) }
        let (digest, diffID, size, isWhole) = stream.finish()
        close(file)
        if failure == nil, !isWhole { failure = fail("the layer cannot be written: no space left?", nil) }
        if let failure {
            unlink(temporary)
            throw failure
        }
        rename(temporary, store.blobPath(digest))
        return WrittenLayer(
            descriptor: Descriptor(mediaType: mediaType, digest: digest, size: size, annotations: annotations),
            diffID: diffID, path: store.blobPath(digest))
    }

    /// What does not get smaller, weights mostly, is stored: it unpacks ten times as fast.
    private func level() -> Int32 {
        var largest: (path: String, size: Int)?
        for entry in entries.values {
            guard case .file(let path) = entry.contents else { continue }
            var information = stat()
            if stat(path, &information) == 0, Int(information.st_size) > largest?.size ?? 1 << 20 {
                largest = (path, Int(information.st_size))
            }
        }
        guard let largest, let sample = readFile(largest.path, limit: 1 << 20) else { return 6 }
        var size = compressBound(UInt(sample.count))
        var packed = [UInt8](repeating: 0, count: Int(size))
        compress2(&packed, &size, sample, UInt(sample.count), 1)
        return Double(size) > 0.85 * Double(sample.count) ? 0 : 6
    }

    private func write(_ entry: LayerEntry, _ stream: GzipStream) throws(ImageError) {
        switch entry.contents {
        case .folder: header(entry.path + "/", "5", 0, 0o755, "", stream)
        case .link(let target): header(entry.path, "2", 0, 0o777, target, stream)
        case .bytes(let bytes):
            header(entry.path, "0", bytes.count, entry.isExecutable ? 0o755 : 0o644, "", stream)
            stream.write(bytes)
            pad(bytes.count, stream)
        case .file(let path):
            let file = open(path, O_RDONLY | O_CLOEXEC)
            var information = stat()
            guard file >= 0, fstat(file, &information) == 0 else {
                throw fail("'\(path)' cannot be read: \(String(cString: strerror(errno)))", nil)
            }
            defer { close(file) }
            let size = Int(information.st_size)
            header(entry.path, "0", size, entry.isExecutable ? 0o755 : 0o644, "", stream)
            var buffer = [UInt8](repeating: 0, count: 256 << 10)
            var left = size
            while left > 0 {
                let count = read(file, &buffer, min(buffer.count, left))
                guard count > 0 else { throw fail("'\(path)' changed while it was packaged", "package again") }
                stream.write(buffer, count)
                left -= count
            }
            pad(size, stream)
        }
    }

    private func pad(_ size: Int, _ stream: GzipStream) {
        if size % 512 != 0 { stream.write([UInt8](repeating: 0, count: 512 - size % 512)) }
    }

    /// A ustar head; before it a pax one for what does not fit.
    private func header(
        _ path: String, _ type: Character, _ size: Int, _ mode: Int, _ target: String, _ stream: GzipStream
    ) {
        var records = ""
        func pax(_ name: String, _ value: String) {
            let tail = " \(name)=\(value)\n"
            var length = tail.utf8.count + 1
            while "\(length)\(tail)".utf8.count != length { length = "\(length)\(tail)".utf8.count }
            records += "\(length)\(tail)"
        }
        if path.utf8.count > 100 { pax("path", path) }
        if target.utf8.count > 100 { pax("linkpath", target) }
        if size > 0o77777777777 { pax("size", "\(size)") }
        if !records.isEmpty {
            let bytes = Array(records.utf8)
            block("./PaxHeaders/entry", "x", bytes.count, 0o644, "", stream)
            stream.write(bytes)
            pad(bytes.count, stream)
        }
        block(path, type, min(size, 0o77777777777), mode, target, stream)
    }

    private func block(
        _ path: String, _ type: Character, _ size: Int, _ mode: Int, _ target: String, _ stream: GzipStream
    ) {
        var head = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, at offset: Int, _ limit: Int) {
            for (index, byte) in text.utf8.prefix(limit).enumerated() { head[offset + index] = byte }
        }
        func octal(_ value: Int, _ digits: Int) -> String {
            let text = String(value, radix: 8)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        put(path, at: 0, 100)
        put(octal(mode, 7), at: 100, 7)
        put(octal(0, 7), at: 108, 7)
        put(octal(0, 7), at: 116, 7)
        put(octal(size, 11), at: 124, 11)
        put(octal(0, 11), at: 136, 11)
        put("        ", at: 148, 8)
        put(String(type), at: 156, 1)
        put(target, at: 157, 100)
        put("ustar", at: 257, 5)
        put("00", at: 263, 2)
        let sum = head.reduce(0) { $0 + Int($1) }
        put(octal(sum, 6) + "\0 ", at: 148, 8)
        stream.write(head)
    }
}

/// Bytes in, gzip out into a file, both sides hashed.
private final class GzipStream {
    private let file: Int32
    private var stream = z_stream()
    private var contents = SHA256Hasher()
    private var packed = SHA256Hasher()
    private var size = 0
    private var isWhole = true
    private var output = [UInt8](repeating: 0, count: 256 << 10)

    init(file: Int32, level: Int32) {
        self.file = file
        andiron_deflate_gzip(&stream, level)
    }

    func write(_ bytes: [UInt8]) { write(bytes, bytes.count) }

    func write(_ bytes: [UInt8], _ count: Int) {
        bytes.withUnsafeBytes { memory in
            let part = UnsafeRawBufferPointer(rebasing: memory[..<count])
            contents.update(part)
            deflatePart(part, Z_NO_FLUSH)
        }
    }

    private func deflatePart(_ part: UnsafeRawBufferPointer, _ flush: Int32) {
        stream.next_in = UnsafeMutablePointer(
            mutating: part.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.avail_in = UInt32(part.count)
        repeat {
            var produced = 0
            output.withUnsafeMutableBytes { memory in
                stream.next_out = memory.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.avail_out = UInt32(memory.count)
                deflate(&stream, flush)
                produced = memory.count - Int(stream.avail_out)
                let made = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<produced])
                packed.update(made)
                var offset = 0
                while offset < produced, isWhole {
                    let count = Glibc.write(file, made.baseAddress?.advanced(by: offset), produced - offset)
                    if count <= 0 { isWhole = false } else { offset += count }
                }
            }
            size += produced
        } while stream.avail_out == 0
    }

    func finish() -> (digest: Digest, diffID: Digest, size: Int, isWhole: Bool) {
        deflatePart(UnsafeRawBufferPointer(start: nil, count: 0), Z_FINISH)
        deflateEnd(&stream)
        return (Digest(packed), Digest(contents), size, isWhole)
    }
}
