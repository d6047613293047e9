// The part of ankerl::unordered_dense that mediasoup-worker names, over the standard library's tables: the
// package's own header is a download that `build-worker` does without. A table look-up costs some nanoseconds
// more, against microseconds per forwarded packet.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace ankerl::unordered_dense
{
	template<class T, class Enable = void>
	struct hash
	{
		uint64_t operator()(const T& value) const noexcept
		{
			return static_cast<uint64_t>(std::hash<T>{}(value)) * UINT64_C(0x9E3779B97F4A7C15);
		}
	};

	template<class K, class V, class H = hash<K>, class Eq = std::equal_to<K>>
	struct map : std::unordered_map<K, V, H, Eq>
	{
		using std::unordered_map<K, V, H, Eq>::unordered_map;
	};

	template<class K, class H = hash<K>, class Eq = std::equal_to<K>>
	struct set : std::unordered_set<K, H, Eq>
	{
		using std::unordered_set<K, H, Eq>::unordered_set;
	};
} // namespace ankerl::unordered_dense
