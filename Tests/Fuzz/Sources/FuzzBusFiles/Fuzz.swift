/// What administrators give the broker: Atom documents, the emulator's configuration, conditions and actions of rules.
@testable import BusFiles
import CFuzzer
import ConfigurationFiles

@_cdecl("busfiles_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    if let node = try? XMLNode.parse(bytes) {
        if let rule = node.first("RuleDescription"), let read = try? RuleDescription.rule(rule, name: nil) {
            check(read)
            // What is written is read again as the same rule.
            let entry = RuleDescription.entry(read, path: "t/Subscriptions/s", base: "http://localhost")
            let again = (try? XMLNode.parse(Array(entry.utf8)))?.first("RuleDescription")
            precondition(again != nil, "an entry that is no XML was written")
        }
    }
    if let file = try? ConfigurationFile(displayName: "Config.json", bytes: bytes, allowsTrailingCommas: true) {
        let configuration = EmulatorConfiguration(file: file)
        for queue in configuration.queues {
            precondition(EntityName.isValid(queue.name), "a wrong name was taken")
            let text = ISODuration.text(queue.settings.lockDuration)
            precondition(ISODuration.milliseconds(text) == queue.settings.lockDuration, "a duration changed")
        }
        for subscription in configuration.topics.flatMap(\.subscriptions) { subscription.rules.forEach(check) }
    }
    let text = String(decoding: bytes, as: UTF8.self)
    if let condition = try? SQLFilter(text) { _ = condition.matches(value) }
    for statement in (try? SQLAction(text))?.statements ?? [] { _ = statement.value?.value(value) }
    _ = HTTPDate.milliseconds(text)
    return 0
}

/// A rule that was taken works on a message.
private func check(_ rule: SubscriptionRule) {
    guard let compiled = try? rule.compiled() else { preconditionFailure("a rule was taken that cannot be parsed") }
    _ = compiled.condition?.matches(value)
    for statement in compiled.action?.statements ?? [] { _ = statement.value?.value(value) }
}

/// One property of each type.
private func value(_ property: SQLProperty) -> FilterValue {
    switch property.name.utf8.count % 8 {
    case 0: .text("some text")
    case 1: .integer(.min)
    case 2: .number(-0.5)
    case 3: .truth(true)
    case 4: .time(1_795_251_600_000)
    case 5: .integer(-1)
    case 6: .other
    default: .unknown
    }
}
