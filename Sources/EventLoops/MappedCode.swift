/// The pages of program code that this process has mapped.
internal import Glibc

/// Unmaps the code that starting has used and that nothing may need again; what is needed comes back from the system's
/// page cache when it is next run. A third to a half of an idle process is such pages.
///
/// Only mappings that are executable and not writable are touched: they hold nothing but the files' own bytes.
public func releaseStartUpCode() {
    let descriptor = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    var text: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while case let count = read(descriptor, &chunk, chunk.count), count > 0 { text += chunk[..<count] }
    for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
        // 55feb77f4000-55feb8978000 r-xp 00000000 fe:00 1234   /path
        let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
        guard fields.count == 6, fields[1] == "r-xp", fields[5].contains("/") else { continue }
        let ends = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
        guard ends.count == 2, ends[0] < ends[1] else { continue }
        // SAFETY: the range is a private mapping of a file that cannot be written to, so its pages are the file's.
        madvise(UnsafeMutableRawPointer(bitPattern: ends[0]), Int(ends[1] - ends[0]), MADV_DONTNEED)
    }
}
