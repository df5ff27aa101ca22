/// The wall clock, for times that others read; what the host itself waits for goes by the monotonic clock.
internal import CLinux
internal import Glibc

/// Seconds since 1970.
public func wallClockSeconds() -> Double {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
}

/// A moment as HTTP writes it: `Sat, 31 Jan 2026 09:05:07 GMT`.
public func httpDate(_ seconds: Double) -> String {
    var whole = Int(seconds)
    var parts = tm()
    gmtime_r(&whole, &parts)
    var buffer = [CChar](repeating: 0, count: 64)
    let length = strftime(&buffer, buffer.count, "%a, %d %b %Y %H:%M:%S GMT", &parts)
    return String(decoding: buffer.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
