/// .NET date formats, as `{DateTime:yyyyMMdd}` uses them; always UTC.
internal import Glibc

/// A format that has been checked.
public struct DateFormat: Sendable, Equatable {
    private enum Piece: Sendable, Equatable {
        case literal(String)
        case field(Character, Int)
    }

    private let pieces: [Piece]

    /// What `{DateTime}` gives without a format.
    public static let templateDefault = "yyyy-MM-ddTHH-mm-ssK"

    private static let standard: [Character: String] = [
        "O": "yyyy-MM-ddTHH:mm:ss.fffffffK", "o": "yyyy-MM-ddTHH:mm:ss.fffffffK", "s": "yyyy-MM-ddTHH:mm:ss",
        "u": "yyyy-MM-dd HH:mm:ssZ", "R": "ddd, dd MMM yyyy HH:mm:ss 'GMT'", "r": "ddd, dd MMM yyyy HH:mm:ss 'GMT'",
        "d": "MM/dd/yyyy", "D": "dddd, dd MMMM yyyy", "t": "HH:mm", "T": "HH:mm:ss", "g": "MM/dd/yyyy HH:mm",
        "G": "MM/dd/yyyy HH:mm:ss", "M": "MMMM dd", "m": "MMMM dd", "Y": "yyyy MMMM", "y": "yyyy MMMM",
    ]

    /// - Throws: when the format is a single unknown letter, or ends inside a quotation.
    public init(_ format: String) throws(BindingTemplateError) {
        var text = format
        if format.count == 1, let letter = format.first {
            guard let whole = Self.standard[letter] else {
                throw BindingTemplateError("'\(format)' is not a date format.")
            }
            text = whole
        }
        var pieces: [Piece] = []
        let characters = Array(text)
        var index = 0
        while index < characters.count {
            let character = characters[index]
            switch character {
            case "y", "M", "d", "H", "h", "m", "s", "f", "F", "t", "K", "z":
                var end = index
                while end < characters.count, characters[end] == character, character != "K" || end == index {
                    end += 1
                }
                pieces.append(.field(character, end - index))
                index = end
            case "'", "\"":
                guard let end = characters[(index + 1)...].firstIndex(of: character) else {
                    throw BindingTemplateError("'\(format)' is not a date format: a quotation does not end.")
                }
                pieces.append(.literal(String(characters[(index + 1)..<end])))
                index = end + 1
            case "\\" where index + 1 < characters.count:
                pieces.append(.literal(String(characters[index + 1])))
                index += 2
            case "%": index += 1
            default:
                pieces.append(.literal(String(character)))
                index += 1
            }
        }
        self.pieces = pieces
    }

    /// The text of a moment, given in seconds since 1970.
    public func text(of seconds: Double) -> String {
        var whole = Int(seconds.rounded(.down))
        let fraction = min(9_999_999, Int((seconds - Double(whole)) * 1e7))
        var parts = tm()
        gmtime_r(&whole, &parts)
        return pieces.map { piece in
            switch piece {
            case .literal(let text): text
            case .field(let letter, let count): Self.field(letter, count, parts, fraction)
            }
        }.joined()
    }

    private static func field(_ letter: Character, _ count: Int, _ parts: tm, _ fraction: Int) -> String {
        let hour12 = parts.tm_hour % 12 == 0 ? 12 : Int(parts.tm_hour) % 12
        switch letter {
        case "y":
            let year = Int(parts.tm_year) + 1900
            return count <= 2 ? pad(year % 100, count) : pad(year, count)
        case "M": return count >= 3 ? name(months, Int(parts.tm_mon), count) : pad(Int(parts.tm_mon) + 1, count)
        case "d": return count >= 3 ? name(days, Int(parts.tm_wday), count) : pad(Int(parts.tm_mday), count)
        case "H": return pad(Int(parts.tm_hour), min(count, 2))
        case "h": return pad(hour12, min(count, 2))
        case "m": return pad(Int(parts.tm_min), min(count, 2))
        case "s": return pad(Int(parts.tm_sec), min(count, 2))
        case "f", "F":
            let digits = String(pad(fraction, 7).prefix(count))
            guard letter == "F" else { return digits }
            return String(digits.reversed().drop { $0 == "0" }.reversed())
        case "t": return String((parts.tm_hour < 12 ? "AM" : "PM").prefix(count))
        case "K": return "Z"
        default: return count >= 3 ? "+00:00" : count == 2 ? "+00" : "+0"
        }
    }

    private static func pad(_ number: Int, _ width: Int) -> String {
        let digits = "\(number)"
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    private static func name(_ names: [String], _ index: Int, _ count: Int) -> String {
        count == 3 ? String(names[index].prefix(3)) : names[index]
    }

    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ]
    private static let days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
}
