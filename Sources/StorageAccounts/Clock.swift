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

/// Seconds since 1970 of an HTTP date (`Sat, 31 Jan 2026 09:05:07 GMT`); nil when it is none.
public func parseHTTPDate(_ text: String) -> Double? {
    let words = text.split(separator: " ")
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    guard words.count == 6, words[5] == "GMT", let day = Int32(words[1]),
        let month = months.firstIndex(of: String(words[2])),
        let year = Int32(words[3]), (1...31).contains(day), (1900...9999).contains(year)
    else { return nil }
    let clock = words[4].split(separator: ":").compactMap { Int32($0) }
    guard clock.count == 3, (0..<24).contains(clock[0]), (0..<60).contains(clock[1]), (0...60).contains(clock[2]) else {
        return nil
    }
    var parts = tm()
    (parts.tm_year, parts.tm_mon, parts.tm_mday) = (year - 1900, Int32(month), day)
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (clock[0], clock[1], clock[2])
    return Double(timegm(&parts))
}
