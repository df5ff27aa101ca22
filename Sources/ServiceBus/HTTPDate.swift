/// Dates as HTTP and Atom write them.

/// Conversions between seconds since 1970 and texts, in UTC.
enum HTTPDate {
    private static let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    private static func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }

    /// `Sat, 21 Nov 2026 09:00:00 GMT`.
    static func text(_ seconds: Int64) -> String {
        let (year, month, day) = date(seconds / 86_400)
        let rest = seconds % 86_400
        return
            "\(days[Int(seconds / 86_400 % 7)]), \(two(day)) \(months[Int(month - 1)]) \(year) \(two(rest / 3600)):\(two(rest / 60 % 60)):\(two(rest % 60)) GMT"
    }

    /// `2026-11-21T09:00:00Z`.
    static func iso(_ milliseconds: Int64) -> String {
        let seconds = milliseconds / 1000
        let (year, month, day) = date(seconds / 86_400)
        let rest = seconds % 86_400
        return "\(year)-\(two(month))-\(two(day))T\(two(rest / 3600)):\(two(rest / 60 % 60)):\(two(rest % 60))Z"
    }

    /// Milliseconds of a text in the second form, with a fraction or an offset from UTC perhaps; nil when it is none.
    static func milliseconds(_ text: String) -> Int64? {
        var rest = Substring(text)
        let number = { (rest: inout Substring, count: Int, end: String) -> Int64? in
            let digits = rest.prefix(count)
            rest = rest.dropFirst(count)
            guard digits.count == count, digits.allSatisfy({ ("0"..."9").contains($0) }), let value = Int64(digits),
                end.isEmpty || rest.first.map({ end.contains($0) }) ?? false
            else { return nil }
            if !end.isEmpty { rest.removeFirst() }
            return value
        }
        guard let year = number(&rest, 4, "-"), let month = number(&rest, 2, "-"), let day = number(&rest, 2, "Tt "),
            let hour = number(&rest, 2, ":"), let minute = number(&rest, 2, ":"), let second = number(&rest, 2, ""),
            (1970...9999).contains(year), (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60,
            second < 61
        else { return nil }
        var milliseconds = (days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000
        if rest.first == "." {
            let digits = rest.dropFirst().prefix { ("0"..."9").contains($0) }
            guard !digits.isEmpty, let fraction = Double("0." + digits) else { return nil }
            milliseconds += Int64(fraction * 1000)
            rest = rest.dropFirst(digits.count + 1)
        }
        guard let sign = rest.popFirst(), sign != "Z", sign != "z" else { return rest.isEmpty ? milliseconds : nil }
        guard sign == "+" || sign == "-", let hours = number(&rest, 2, ":"), let minutes = number(&rest, 2, ""),
            rest.isEmpty
        else { return nil }
        return milliseconds - (sign == "+" ? 1 : -1) * (hours * 60 + minutes) * 60_000
    }

    /// Seconds of a text in the first form; nil when it is none.
    static func seconds(_ text: String) -> Int64? {
        let parts = text.split(whereSeparator: { " ,:".contains($0) })
        guard parts.count >= 7, let day = Int64(parts[1]), let month = months.firstIndex(of: String(parts[2])),
            let year = Int64(parts[3]), let hour = Int64(parts[4]), let minute = Int64(parts[5]),
            let second = Int64(parts[6]), (1970...9999).contains(year), (1...31).contains(day)
        else { return nil }
        return days(year, Int64(month + 1), day) * 86_400 + hour * 3600 + minute * 60 + second
    }

    /// Days since 1970 of a date of the proleptic Gregorian calendar.
    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = shifted / 400
        let ofEra = shifted - era * 400
        let ofYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return era * 146_097 + ofEra * 365 + ofEra / 4 - ofEra / 100 + ofYear - 719_468
    }

    private static func date(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let ofEra = shifted - era * 146_097
        let yearOfEra = (ofEra - ofEra / 1460 + ofEra / 36_524 - ofEra / 146_096) / 365
        let ofYear = ofEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * ofYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, ofYear - (153 * shiftedMonth + 2) / 5 + 1)
    }
}

/// Text made harmless inside XML.
func xmlEscape(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "&": result += "&amp;"
        case "<": result += "&lt;"
        case ">": result += "&gt;"
        case "\"": result += "&quot;"
        default: result.unicodeScalars.append(scalar.value < 0x20 && scalar.value != 0x0A ? " " : scalar)
        }
    }
    return result
}
