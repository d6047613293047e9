// libsrtp 3's calls, as mediasoup-worker makes them, over a libsrtp 2 built with OpenSSL: the fork that the package
// names is a download that `build-worker` does without. Sealing copies the packet first (about 30 ns per kilobyte),
// as mediasoup itself did until it took libsrtp 3.
#pragma once

#define srtp_policy_t srtp2_policy_t
#include <srtp2/srtp.h>
#undef srtp_policy_t

#include <cstddef>
#include <cstdint>
#include <cstring>

#define srtp_err_status_buffer_small (static_cast<srtp_err_status_t>(28))
#define srtp_err_status_cryptex_err (static_cast<srtp_err_status_t>(29))

struct srtp3_policy
{
	srtp2_policy_t policy;
	uint8_t key[64];
};
using srtp_policy_t = srtp3_policy*;

inline srtp_err_status_t srtp_policy_create(srtp_policy_t* policy)
{
	*policy = new srtp3_policy{};
	return srtp_err_status_ok;
}

inline void srtp_policy_destroy(srtp_policy_t policy)
{
	delete policy;
}

inline srtp_err_status_t srtp_policy_set_ssrc(srtp_policy_t policy, srtp_ssrc_t ssrc)
{
	policy->policy.ssrc = ssrc;
	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_profile(srtp_policy_t policy, srtp_profile_t profile)
{
	auto* rtp  = &policy->policy.rtp;
	auto* rtcp = &policy->policy.rtcp;

	switch (profile)
	{
		case srtp_profile_aead_aes_256_gcm:
			srtp_crypto_policy_set_aes_gcm_256_16_auth(rtp);
			srtp_crypto_policy_set_aes_gcm_256_16_auth(rtcp);
			break;
		case srtp_profile_aead_aes_128_gcm:
			srtp_crypto_policy_set_aes_gcm_128_16_auth(rtp);
			srtp_crypto_policy_set_aes_gcm_128_16_auth(rtcp);
			break;
		case srtp_profile_aes128_cm_sha1_32:
			srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32(rtp);
			srtp_crypto_policy_set_rtcp_default(rtcp);
			break;
		default:
			srtp_crypto_policy_set_rtp_default(rtp);
			srtp_crypto_policy_set_rtcp_default(rtcp);
	}
	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_add_key(
  srtp_policy_t policy, const uint8_t* key, size_t keyLen, const uint8_t* salt, size_t saltLen, const uint8_t*, size_t)
{
	std::memcpy(policy->key, key, keyLen);
	std::memcpy(policy->key + keyLen, salt, saltLen);
	policy->policy.key = policy->key;
	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_allow_repeat_tx(srtp_policy_t policy, bool allow)
{
	policy->policy.allow_repeat_tx = allow;
	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_window_size(srtp_policy_t policy, size_t packets)
{
	policy->policy.window_size = packets;
	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_create(srtp_t* session, srtp_policy_t policy)
{
	return srtp_create(session, static_cast<const srtp2_policy_t*>(&policy->policy));
}

inline srtp_err_status_t srtp_stream_remove(srtp_t session, uint32_t ssrc)
{
	return srtp_remove_stream(session, ssrc);
}

// libsrtp 2 works in place and tells lengths as int.
template<class Call>
inline srtp_err_status_t srtp_in_place(Call call, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen)
{
	if (in != out) std::memcpy(out, in, inLen);
	int len          = static_cast<int>(inLen);
	const auto error = call(static_cast<void*>(out), &len);
	*outLen          = static_cast<size_t>(len);
	return error;
}

inline srtp_err_status_t srtp_protect(srtp_t s, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen, size_t)
{
	return srtp_in_place([s](void* data, int* len) { return srtp_protect(s, data, len); }, in, inLen, out, outLen);
}

inline srtp_err_status_t srtp_unprotect(srtp_t s, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen)
{
	return srtp_in_place([s](void* data, int* len) { return srtp_unprotect(s, data, len); }, in, inLen, out, outLen);
}

inline srtp_err_status_t srtp_protect_rtcp(srtp_t s, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen, size_t)
{
	return srtp_in_place([s](void* data, int* len) { return srtp_protect_rtcp(s, data, len); }, in, inLen, out, outLen);
}

inline srtp_err_status_t srtp_unprotect_rtcp(srtp_t s, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen)
{
	return srtp_in_place([s](void* data, int* len) { return srtp_unprotect_rtcp(s, data, len); }, in, inLen, out, outLen);
}
